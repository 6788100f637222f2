// A file of the site, and no worker.
