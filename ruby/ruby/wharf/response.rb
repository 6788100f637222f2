# frozen_string_literal: true

module Wharf
  # A response, written as CGI/1.1 has it (RFC 3875, 6).
  class Response
    # Without content, whatever the program gives (RFC 9110, 6.4.1).
    NO_CONTENT = [204, 304].freeze

    def initialize(out, method)
      @out = out
      @is_head = method == "HEAD"
      @head = nil
      @begun = false
    end

    # Whether some of it was sent.
    def begun? = @begun

    # Sends all of a response whose body is a string.
    def whole(status, headers, body)
      start(status, headers, length: body.bytesize)
      write(body)
      finish
    end

    # Sends a line of text.
    def plain(status, text)
      whole(status, { "content-type" => "text/plain; charset=utf-8" }, "#{text}\n")
    end

    # Sets the head; it is sent with the first bytes of the body. `length` is
    # that of the body, where it is known.
    def start(status, headers, length: nil)
      status = Integer(status)
      @head = "Status: #{status}\r\n".b
      @empty = @is_head || NO_CONTENT.include?(status)
      has_length = @empty
      headers.each do |name, value|
        name = name.to_s
        # Not to be sent (Rack), or said already.
        next if name.start_with?("rack.") || name.casecmp?("status")
        has_length ||= name.casecmp?("content-length")
        # Rack 3 has an array for many values, Rack 2 lines.
        (value.is_a?(Array) ? value : value.to_s.split("\n", -1)).each { |one| field(name, one.to_s) }
      end
      @head << "Content-Length: #{length}\r\n" if length && !has_length
      @head << "\r\n"
    end

    # Sends a part of the body.
    def write(part)
      part = "" if @empty
      if @head
        part = @head << part.b
        @head = nil
        @begun = true
      end
      @out.write(part) unless part.empty?
    end

    # Sends the head, if nothing was written.
    def finish
      write("")
    end

    private

    def field(name, value)
      if name.match?(/[^!#$%&'*+\-.^_`|~0-9A-Za-z]/) || name.empty? || value.match?(/[\r\n\0]/n)
        raise ArgumentError, "malformed header #{name.inspect}: #{value.inspect}"
      end
      @head << name << ": " << value.b << "\r\n"
    end
  end
end
