"""What `station bench` measures, one module each."""
