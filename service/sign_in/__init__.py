"""Signing in: people by their OpenID Connect issuer, and keys, for a session of the service's own."""
