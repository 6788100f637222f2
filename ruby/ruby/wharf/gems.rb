# frozen_string_literal: true

module Wharf
  # Gems of the project, as Bundler installs them into vendor/bundle. RubyGems
  # is not loaded: their folders are put onto the load path. Before Ruby's own
  # library come stand-ins for what can't be in WebAssembly.
  module Gems
    # Where `bundle install` and `gem install --install-dir` put them.
    HOMES = ["#{PROJECT}/vendor/bundle/ruby/*", "#{PROJECT}/vendor/bundle"].freeze

    # Gems with an extension that Ruby has built in here.
    BUILT_IN = %w[
      bundler cgi date digest erb etc io-wait json monitor objspace openssl pathname prism psych ripper stringio strscan zlib
    ].freeze

    Found = Struct.new(:name, :version, :folder, :require_paths, :extension)

    @found = {}

    class << self
      def activate
        found = HOMES.flat_map { |home| Dir.glob("#{home}/specifications/*.gemspec").sort.filter_map { |spec| read(spec) } }
        locked = locked_versions
        found.group_by(&:name).each do |name, versions|
          next if BUILT_IN.include?(name) && versions.any?(&:extension)
          @found[name] = versions.find { |one| one.version == locked[name] } || versions.max_by { |one| numbers(one.version) }
        end
        mine = @found.values.flat_map { |one| one.require_paths.map { |path| "#{one.folder}/#{path}" } }
        from_git = Dir.glob("#{HOMES.first}/bundler/gems/*/lib").sort
        # Ruby's own gems come last: the project's release wins.
        bundled = Dir.glob("/usr/local/lib/ruby/gems/*/gems/*/lib").sort
        $LOAD_PATH.unshift(*mine, *from_git, "/wharf/standins").concat(bundled)
        require "rubygems"
      end

      def has?(name) = @found.key?(name)

      # What the user can do about an error at load, if anything.
      def hint(error)
        return unless error.is_a?(::LoadError) && (missing = error.path)
        extension = @found.values.find { |one| one.extension && missing.start_with?(one.name, one.name.tr("-", "/")) }
        if extension
          "the gem #{extension.name} #{extension.version} has an extension in C (#{extension.extension}), " \
            "and only gems in plain Ruby run in WebAssembly"
        elsif %w[io/console pty syslog expect].include?(missing)
          "there are no terminals and no processes in WebAssembly"
        elsif !missing.start_with?("/", ".")
          "if it is a gem: bundle config set --local path vendor/bundle && bundle add #{missing[/\A[^\/]+/]}"
        end
      end

      # Loads what is declared by `autoload` in the project and its gems: a
      # request would read and compile it each time.
      def load_all_autoloads
        seen = 0
        until seen == (modules = ObjectSpace.each_object(Module).to_a).size
          seen = modules.size
          modules.each { |one| load_autoloads(one) }
        end
      end

      private

      def load_autoloads(one)
        one.constants(false).each do |name|
          next unless (feature = one.autoload?(name, false))
          _, file = $LOAD_PATH.resolve_feature_path(feature)
          one.const_get(name, false) if file&.start_with?(PROJECT)
        rescue ::LoadError, StandardError, NotImplementedError
          # It says so again to who uses it.
        end
      end

      # RubyGems writes a gem's name, version, platform and load paths into the
      # first lines, and what it has to compile.
      def read(spec)
        lines = File.foreach(spec).first(4).filter_map { |line| line.chomp[/\A# stub: (.*)/m, 1] }
        return unless lines.first
        name, version, _platform, paths = lines.first.split(" ", 4)
        folder = "#{File.dirname(spec, 2)}/gems/#{File.basename(spec, ".gemspec")}"
        Found.new(name, version, folder, paths.split("\0"), lines[1]&.split("\0")&.first)
      end

      def locked_versions
        File.foreach("#{PROJECT}/Gemfile.lock").filter_map { |line| line.match(/\A    (\S+) \(([^)-]+)/)&.captures }.to_h
      rescue Errno::ENOENT
        {}
      end

      def numbers(version) = version.split(".").map { |part| [part.to_i, part] }
    end
  end
end
