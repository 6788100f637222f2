# languages/introduction.md: no worker, as .wws.toml has no runtime for .rb.
raise "not to be run"
