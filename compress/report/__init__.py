"""One frozen report, rendered as JSON, Markdown and a terminal table."""
