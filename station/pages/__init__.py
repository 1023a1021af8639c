"""The HTML pages and their figures: each page is one file that needs nothing beside itself."""
