"""Speed: time by stage, arithmetic and memory of sampling, compared with how published code samples."""
