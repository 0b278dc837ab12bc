"""Self-contained pages of HTML: reports, contact sheets, the demo."""
