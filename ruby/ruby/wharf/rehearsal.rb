# frozen_string_literal: true

require "stringio"

module Wharf
  # Requests before the snapshot. Ruby fills caches when code first runs: without
  # a rehearsal each request would be the first one, in an instance of its own.
  module Rehearsal
    REQUEST = {
      "REQUEST_METHOD" => "GET", "SCRIPT_NAME" => "", "PATH_INFO" => "/.wharf-rehearsal", "QUERY_STRING" => "a=b",
      "REQUEST_URI" => "/.wharf-rehearsal?a=b", "REQUEST_SCHEME" => "http", "SERVER_NAME" => "localhost",
      "SERVER_PORT" => "80", "SERVER_PROTOCOL" => "HTTP/1.1", "REMOTE_ADDR" => "127.0.0.1",
      "HTTP_HOST" => "localhost", "HTTP_ACCEPT" => "*/*", "HTTP_ACCEPT_ENCODING" => "gzip",
      "HTTP_USER_AGENT" => "wharf", "WHARF_PARAMS" => "a=%20b&c=d"
    }.freeze

    # Notes that a program looks at its environment, which is not that of its
    # requests yet: it could keep what it finds.
    module Watched
      %i[[] fetch key? has_key? include? member? values_at slice to_h to_hash each each_pair select filter].each do |name|
        define_method(name) do |*arguments, &block|
          Rehearsal.asks_for("ENV") unless arguments.any? && (arguments - ENVIRONMENT.keys).empty?
          super(*arguments, &block)
        end
      end
    end

    @running = false
    @over = false
    @asked = []

    class << self
      # Of our own: a worker and an application that do little.
      def workers
        app = ->(_) { [200, { "content-type" => "text/plain", "set-cookie" => %w[a b] }, ["a"]] }
        [RackWorker.of(app), Worker.of(->(request) { Worker::Response.new(request.url) })]
      end

      # Lets each of `workers` answer three times. What of the world they asked
      # for: lines.
      def run(workers)
        ENV.singleton_class.prepend(Watched)
        @running = true
        workers.each { |worker| 3.times { Wharf.respond(worker, REQUEST, StringIO.new("".b)) } }
        @asked.uniq.join("\n")
      rescue Exception => error
        error.class.to_s
      ensure
        Watched.instance_methods.each { |name| Watched.remove_method(name) }
        @running = false
        @over = true
      end

      # Whether the host can be asked for something.
      def over? = @over

      # Takes note.
      def asks_for(what)
        @asked << what if @running
      end
    end
  end
end
