"""Sound files of any format -> 16-bit samples, all of them or an error. `sound` is the entrance."""
