"""Updates as Server-Sent Events: the route, and the connection of one client."""
