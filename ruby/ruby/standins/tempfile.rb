# frozen_string_literal: true

require "rbconfig"
require "stringio"
load File.join(RbConfig::CONFIG["rubylibdir"], "tempfile.rb")

class Tempfile
  # A file that is in memory and has no path: what a form uploads, in Rack.
  class InMemory < StringIO
    def initialize = super(+"", "w+b")
    def path = nil
    def length = size
    def unlink = nil
    def chmod(*) = 0
    def flock(*) = 0
    def fdatasync = 0
    def open = tap(&:rewind)

    # What is closed can be opened again, until it is unlinked.
    def close(unlink_now = false) = unlink_now ? super() : rewind
    def close! = close(true)
    alias delete unlink
  end

  class << self
    alias new_on_disk new
    alias create_on_disk create

    # Of a folder that is given, or that TMPDIR names, as Ruby has it. There is
    # no other folder for temporary files.
    def new(basename = "", tmpdir = nil, **options)
      tmpdir ||= ENV["TMPDIR"]
      tmpdir ? new_on_disk(basename, tmpdir, **options) : InMemory.new
    end

    def create(basename = "", tmpdir = nil, **options, &block)
      tmpdir ||= ENV["TMPDIR"]
      return create_on_disk(basename, tmpdir, **options, &block) if tmpdir

      block ? block.call(InMemory.new) : InMemory.new
    end
  end
end
