"""The console: a page that shows what the proxy serves, and lets people try it."""
