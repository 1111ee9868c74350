"""What came out: a record for every kind of result, with its file and how sure it is. No torch here."""
