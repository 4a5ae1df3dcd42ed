"""The migrations, oldest first. One is never edited once it was released: add another."""
