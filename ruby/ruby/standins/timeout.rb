# frozen_string_literal: true

# Ruby's own needs a thread, and there are none. How long a request may take is
# for the host to say (wharf.toml: timeout).
module Timeout
  class ExitException < Exception; end
  class Error < RuntimeError; end

  def self.timeout(seconds, _error = nil, _message = nil) = yield(seconds)
  def timeout(...) = Timeout.timeout(...)
  private :timeout
end
