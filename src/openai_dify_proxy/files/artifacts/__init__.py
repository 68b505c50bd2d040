"""Files out of Dify: fetched in the background, stored until their links expire, and served by the proxy."""
