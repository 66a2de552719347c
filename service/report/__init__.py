"""The post-market-monitoring report of a period: gathered from the store, written as JSON and PDF."""
