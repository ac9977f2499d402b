"""Models that run: engines, sessions, pools, forecasts."""
