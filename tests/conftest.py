"""Tests run in a process that is prepared as a command's is."""

from station import process

process.prepare()
