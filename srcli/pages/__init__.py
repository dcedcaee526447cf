"""Pages of HTML that are whole in one file: comparisons of pictures, tables with plots."""
