"""What goes in and what comes out: rows, records, params, labels, and their JSON."""
