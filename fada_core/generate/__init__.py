"""The command that makes videos: options, a single video, lists of jobs."""
