"""Parsing of the fields of requests and models of the answers, independent of HTTP."""
