"""What is kept of every sheet: files, manifests, the ledger, and the proof that none is lost."""
