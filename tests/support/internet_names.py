"""The names that the servers of internet.py have a certificate for."""
SERVED = ["pypi.org", "files.pythonhosted.org", "registry.npmjs.org", "www.example.com", "api.example.com", "other.example.com",
          "fromhosts.example.com", "rebind.example.com", "mixed.example.com"]
