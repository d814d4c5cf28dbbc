"""The page of `tools.app`: an HTTP server on localhost, with templates, a style sheet and plain scripts of its own."""
