"""What an installation holds, as a file for review in git: written, compared with an installation, and applied."""
