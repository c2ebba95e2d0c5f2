"""What provider authors build feeds with: the socket, REST, pace, paging; they import it from `relay`."""
