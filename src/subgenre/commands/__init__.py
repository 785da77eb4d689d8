"""One file a command, one public function of that name: files in, files out."""
