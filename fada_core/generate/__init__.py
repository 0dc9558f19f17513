"""The command that makes videos: its options, one video, a list of jobs."""
