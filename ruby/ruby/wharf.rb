# frozen_string_literal: true

# Wharf's half inside Ruby. `build` and `rehearse` run once, when the component
# is made, and `serve` for each request, in an instance that is as they left it.
module Wharf
  # Where the project's files are, in here.
  PROJECT = "/project"

  # The response goes to stdout, so what workers print goes to stderr.
  OUT = $stdout
  OUT.binmode
  OUT.sync = true
  $stdout = $stderr

  # What a project lacks to be a program.
  class Problem < StandardError; end

  # What runs in an image is no development.
  ENVIRONMENT = { "APP_ENV" => "production", "RACK_ENV" => "production" }.freeze

  require_relative "wharf/gems"
  require_relative "wharf/kv"
  require_relative "wharf/response"
  require_relative "wharf/worker"
  require_relative "wharf/rack"
  require_relative "wharf/rehearsal"

  @workers = {}

  class << self
    # Loads the workers of `list`: name and path of each, ended by NUL. Where
    # they can't be loaded, says why on stdout, and after a NUL what to do.
    def build(list)
      ENV.update(ENVIRONMENT)
      Dir.chdir(PROJECT)
      Gems.activate
      list.force_encoding("UTF-8").split("\0").each_slice(2) do |name, path|
        @workers[name] = path.end_with?(".ru") ? RackWorker.new(path) : Worker.new(path)
      end
      Gems.load_all_autoloads
      # What is left is old, and none is garbage. Not after the rehearsal: new
      # objects would then be all over the heap, and each page that a request
      # writes to has its price.
      Process.warmup
    rescue Exception => error # SystemExit and SyntaxError too
      OUT.write("#{report(error)}\0#{Gems.hint(error)}")
      raise
    end

    # Rehearses with workers of our own and, if so wanted, with the user's of
    # frameworks; says on stdout what of the world these asked for, if anything.
    def rehearse(with_frameworks)
      frameworks = @workers.values.grep(RackWorker).select(&:framework?)
      OUT.write(Rehearsal.run(Rehearsal.workers + (with_frameworks ? frameworks : [])))
    end

    # Answers the request that environment and stdin hold.
    def serve
      # libc reads the environment when it is first asked for a variable: `to_h`
      # alone would see none.
      name = ENV["WHARF_WORKER"]
      ENVIRONMENT.each { |variable, value| ENV[variable] ||= value }
      reseed
      worker = name ? @workers[name] : (@workers.values.first if @workers.size == 1)
      respond(worker, ENV.to_h, OUT)
    end

    # Lets `worker` answer the request `env` on `out`.
    def respond(worker, env, out)
      response = Response.new(out, env["REQUEST_METHOD"])
      return response.plain(404, "no such worker") unless worker
      begin
        worker.answer(env, response)
      rescue Exception => error # SystemExit and NotImplementedError too
        warn report(error)
        # What has begun can't become an error any more: the connection breaks.
        raise if response.begun?
        response.plain(500, "500 Internal Server Error")
      end
    end

    # The lines of an exception that concern its reader: without frames of
    # Ruby's library and of ours, and with paths as the project has them.
    def report(error)
      first, *rest = frames(error)
      message = error.message.empty? ? error.class.to_s : error.message
      message = "#{first}: #{message}" if first && !error.is_a?(SyntaxError) && !error.is_a?(Problem)
      message += " (#{error.class})" unless message.include?(error.class.to_s) || error.is_a?(Problem)
      lines = [message, *rest.map { |frame| "  from #{frame}" }]
      lines << "Caused by #{report(error.cause)}" if error.cause
      lines.join("\n").gsub("#{PROJECT}/", "")
    end

    private

    def frames(error)
      all = (error.backtrace || []).reject { |frame| frame.start_with?("/wharf/", "eval:", "-e:") }
      own = all.select { |frame| frame.start_with?("#{PROJECT}/") && !frame.start_with?("#{PROJECT}/vendor/") }
      # Of a line the outermost: where it calls what is not shown.
      places = (own.empty? ? all : own).slice_when { |a, b| a[/\A.*?:\d+/] != b[/\A.*?:\d+/] }.map(&:last)
      places.map { |place| place.delete_suffix(":in '<top (required)>'") }
    end

    # All instances come from one snapshot. `Random` must differ in each; what
    # asks the system (SecureRandom, Random.urandom) does by itself.
    def reseed
      srand
      OpenSSL::Random.seed(Random.urandom(48)) if defined?(OpenSSL::Random)
    end
  end
end
