"""The peers' servers: started here, for this run alone, and gone at its end."""
