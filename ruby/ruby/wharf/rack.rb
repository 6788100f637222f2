# frozen_string_literal: true

module Wharf
  # A Rack application of a `config.ru` (Rack 3's specification).
  class RackWorker
    # A binding at the top level with `self` a builder, as Rack's own has it.
    BINDING = TOPLEVEL_BINDING.eval("->(builder) { builder.instance_eval { binding } }")

    def initialize(path)
      @app = RackWorker.load(path)
      @framework = Gems.has?("rack")
    end

    # Whether there is more between the server and the user's code than us.
    def framework? = @framework

    # A worker without a file, for the rehearsal.
    def self.of(app)
      allocate.tap { |made| made.instance_variable_set(:@app, app) }
    end

    # The application of the file `path`, by the gem rack where the project has it.
    def self.load(path)
      if Gems.has?("rack")
        require "rack"
        app = Rack::Builder.parse_file("#{PROJECT}/#{path}")
        return app.is_a?(Array) ? app.first : app
      end
      builder = Builder.new
      eval(File.read("#{PROJECT}/#{path}"), BINDING.call(builder), "#{PROJECT}/#{path}", 1)
      builder.to_app or raise Problem, "#{path}: no application found: expected run app"
    end

    def answer(env, response)
      status, headers, body = @app.call(environment(env))
      send_body(status, headers, body, response)
    ensure
      body.close if body.respond_to?(:close)
    end

    private

    def environment(env)
      env = env.dup
      path = env.fetch("REQUEST_URI", "").split("?", 2).first.to_s
      env["SCRIPT_NAME"], env["PATH_INFO"] = split(path, env["SCRIPT_NAME"].to_s)
      # Rack forbids these, and an empty length.
      env.delete("HTTP_CONTENT_TYPE")
      env.delete("HTTP_CONTENT_LENGTH")
      env.delete("CONTENT_LENGTH") if env["CONTENT_LENGTH"] == ""
      env["rack.url_scheme"] = env["REQUEST_SCHEME"] || "http"
      env["rack.input"] = input
      env["rack.errors"] = $stderr
      env["rack.multithread"] = env["rack.multiprocess"] = env["rack.run_once"] = false
      env["wharf.params"] = Wharf.params(env["WHARF_PARAMS"])
      env
    end

    # CGI has the path decoded, Rack's servers as it was sent.
    def split(path, script)
      at = (0..path.length).find do |index|
        (index == path.length || path[index] == "/") && decode(path[0...index]) == script
      end
      at ? [path[0...at], path[at..]] : [script, path.delete_prefix(script)]
    end

    def decode(text)
      return text unless text.include?("%")
      text.b.gsub(/%\h\h/) { |code| code[1..].hex.chr }.force_encoding("UTF-8").scrub
    end

    def input
      STDIN.binmode
      # Rack 2 reads it twice.
      return STDIN unless defined?(Rack.release) && Rack.release < "3"
      StringIO.new(STDIN.read)
    end

    def send_body(status, headers, body, response)
      if body.respond_to?(:to_ary)
        parts = body.to_ary
        response.start(status, headers, length: parts.sum(&:bytesize))
        response.write(parts.join)
      elsif body.respond_to?(:to_path)
        response.start(status, headers, length: File.size(body.to_path))
        File.open(body.to_path, "rb") { |file| response.write(file.read(65_536)) until file.eof? }
      elsif body.respond_to?(:each)
        response.start(status, headers)
        body.each { |part| response.write(part) }
      else
        response.start(status, headers)
        body.call(Stream.new(response))
      end
      response.finish
    end

    # What a streaming body reads from and writes to.
    class Stream
      def initialize(response)
        @response = response
        @closed = false
      end

      def read(...) = STDIN.read(...)

      def write(part)
        raise IOError, "closed stream" if @closed
        @response.write(part.to_s)
        part.to_s.bytesize
      end

      def <<(part)
        write(part)
        self
      end

      def flush = self
      def close_read = nil
      def close_write = @closed = true
      def close(*) = @closed = true
      def closed? = @closed
    end

    # What a `config.ru` says.
    class Builder
      def initialize
        @middleware = []
        @map = {}
        @run = nil
      end

      def use(middleware, *arguments, **options, &block)
        @middleware << ->(app) { middleware.new(app, *arguments, **options, &block) }
      end

      def run(app = nil, &block)
        @run = app || block
      end

      def map(prefix, &block)
        builder = Builder.new
        builder.instance_eval(&block)
        @map[prefix.chomp("/")] = builder.to_app
      end

      # None if nothing was said to run.
      def to_app
        app = @map.empty? ? @run : method(:mapped).to_proc
        app && @middleware.reverse.inject(app) { |inner, middleware| middleware.call(inner) }
      end

      private

      def mapped(env)
        script, path = env.values_at("SCRIPT_NAME", "PATH_INFO")
        prefix = @map.keys.sort_by { |key| -key.length }.find { |key| path == key || path.start_with?("#{key}/") }
        app = prefix ? @map[prefix] : @run
        return [404, { "content-type" => "text/plain", "x-cascade" => "pass" }, ["Not Found: #{path}"]] unless app
        return app.call(env) unless prefix
        begin
          env["SCRIPT_NAME"] = script + prefix
          env["PATH_INFO"] = path.delete_prefix(prefix)
          app.call(env)
        ensure
          env["SCRIPT_NAME"] = script
          env["PATH_INFO"] = path
        end
      end
    end
  end
end
