"""From numbers to what people read: Markdown, LaTeX, figures, the page."""
