"""Talking to a server over HTTP: its address and key, requests with retries, tokens and money. What models and encoders share."""
