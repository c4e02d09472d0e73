"""What all parts share: tables, wire framing, versions, configuration files, errors."""
