"""Models as graphs: their parts, building, joining and streaming."""
