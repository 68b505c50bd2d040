"""The console: a web page that shows the apps, models and traffic of the proxy, and calls its API."""
