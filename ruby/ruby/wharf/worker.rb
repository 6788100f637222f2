# frozen_string_literal: true

require "stringio"

module Wharf
  # A worker of its own file: `def worker(request)` that returns a Response, as
  # Wasm Workers Server has it.
  class Worker
    # A request: method, url, headers, body, and the parameters of the route.
    class Request
      attr_reader :method, :url, :path, :query, :headers, :body, :params

      def initialize(env)
        @method = env["REQUEST_METHOD"]
        @url = "#{env["REQUEST_SCHEME"]}://#{env["HTTP_HOST"] || "localhost"}#{env["REQUEST_URI"]}"
        @path = "#{env["SCRIPT_NAME"]}#{env["PATH_INFO"]}"
        @query = env["QUERY_STRING"]
        @headers = Headers.of(env)
        @body = env.key?("CONTENT_LENGTH") ? STDIN.binmode.read.force_encoding("UTF-8") : ""
        @params = Wharf.params(env["WHARF_PARAMS"])
      end

      # The body as JSON.
      def json
        require "json"
        JSON.parse(@body)
      end
    end

    # Header fields of a request: names without regard to case.
    class Headers < Hash
      def self.of(env)
        headers = new
        env.each do |name, value|
          headers.store(name[5..].downcase.tr("_", "-"), value) if name.start_with?("HTTP_")
        end
        headers.store("content-type", env["CONTENT_TYPE"]) if env["CONTENT_TYPE"]
        headers.store("content-length", env["CONTENT_LENGTH"]) if env["CONTENT_LENGTH"]
        headers
      end

      def [](name) = super(name.to_s.downcase)
      def fetch(name, *default, &block) = super(name.to_s.downcase, *default, &block)
      def key?(name) = super(name.to_s.downcase)
    end

    # A response: a body, a status, and headers.
    class Response
      attr_accessor :body, :status_code, :headers

      def initialize(body = "", status_code = 200, headers = {})
        @body = body
        @status_code = status_code
        @headers = headers
      end

      def self.ok(body) = new(body)
      def self.created(body) = new(body, 201)
      def self.not_found(body) = new(body, 404)
    end

    # Values that outlive a request, of the store "default"; without one, those of
    # this request.
    module Cache
      # What there is without a store. An instance of Ruby answers one request.
      KEPT = {}
      private_constant :KEPT

      def self.get(key)
        store = granted
        store ? store.get(key.to_s)&.force_encoding("UTF-8") : KEPT[key.to_s]
      end

      def self.set(key, value)
        store = granted
        store ? store.set(key.to_s, value.to_s) : KEPT[key.to_s] = value.to_s
      end

      def self.granted
        Wharf::KV.open("default")
      rescue Wharf::KV::NotGranted
        nil
      end
      private_class_method :granted
    end

    # What a worker's file sees without asking for it.
    GIVEN = { Request: Request, Response: Response, Cache: Cache }.freeze

    # The worker that the project's file `path` defines.
    def initialize(path)
      @path = path
      # Its methods and constants are its own: all workers share this Ruby.
      space = Module.new
      GIVEN.each { |name, value| space.const_set(name, value) }
      load("#{PROJECT}/#{path}", space)
      @self = Object.new.extend(space)
      return if @self.respond_to?(:worker, true)
      raise Problem, "#{path}: no method worker(request) found: expected def worker(request)"
    end

    # A worker without a file, for the rehearsal.
    def self.of(worker)
      made = allocate
      made.instance_variable_set(:@self, Object.new.tap { |object| object.define_singleton_method(:worker, &worker) })
      made
    end

    def answer(env, response)
      answer = @self.send(:worker, Request.new(env))
      unless answer.is_a?(Response)
        raise TypeError, "#{@path}: worker returned #{answer.class}: expected a Response"
      end
      headers = answer.headers.to_h { |name, value| [name.to_s.tr("_", "-"), value] }
      headers["content-type"] = "text/html" unless headers.any? { |name, _| name.casecmp?("content-type") }
      response.whole(answer.status_code, headers, answer.body.to_s)
    end
  end

  # Parameters of a route, as the host writes them.
  def self.params(text)
    return {} unless text
    text.split("&").to_h do |pair|
      pair.split("=", 2).map { |part| part.gsub(/%\h\h/) { |code| code[1..].hex.chr }.force_encoding("UTF-8") }
    end
  end
end

# In classes and in files that a worker requires.
Object.singleton_class.prepend(Module.new do
  def const_missing(name)
    Wharf::Worker::GIVEN.fetch(name) { super }
  end
end)
