# frozen_string_literal: true

require "js.so"

module Wharf
  # Key-value stores that wharf.toml grants:
  #
  #     store = Wharf::KV.open("default")
  #     store.set("a", "1")
  #
  # By `wasi:keyvalue`, called through src/glue.wat.
  class KV
    # A store is not granted, or failed.
    class Error < StandardError; end

    # There is no store of the name, or none at all.
    class NotGranted < Error; end

    # Keeps the module's own name for it from users' code.
    EVAL = JS.method(:eval)
    private_constant :EVAL

    # The store `name`.
    def self.open(name)
      Rehearsal.asks_for("Wharf::KV")
      answer = call(1, 0, name.b)
      new(name, answer.unpack1("@4L<"))
    rescue Error => error
      raise error.class, "cannot open the store #{name.inspect}: #{error.message}"
    end

    def initialize(name, bucket)
      @name = name
      @bucket = bucket
    end
    private_class_method :new

    # The value of `key`, in bytes; nil if it has none.
    def get(key)
      some, address, length = operate(2, key).unpack("@4Cx3L<L<")
      some == 1 ? KV.read(address, length) : nil
    end

    # Sets the value of `key`.
    def set(key, value)
      operate(3, key, value)
      value
    end

    # Removes `key`, if it is there.
    def delete(key)
      operate(4, key)
      nil
    end

    # Whether `key` has a value.
    def exists?(key) = operate(5, key).getbyte(4) == 1

    # All keys.
    def keys
      keys = []
      cursor = nil
      loop do
        answer = KV.call(6, @bucket, [cursor || 0].pack("Q<"), has: cursor ? 1 : 0)
        address, length, more, cursor = answer.unpack("@8L<L<Cx7Q<")
        table = length.zero? ? "" : KV.read(address, length * 8)
        table.unpack("L<*").each_slice(2) { |at, size| keys << KV.read(at, size).force_encoding("UTF-8") }
        return keys if more.zero?
      end
    end

    # Adds `delta` to the number that `key` has, and gives the sum.
    def increment(key, delta = 1) = operate(7, key, [delta].pack("Q<")).unpack1("@8Q<")

    class << self
      # The host's answer: the memory of a `result`. Its error's place depends
      # on how large the other case is aligned.
      def call(operation, bucket, bytes, value = "", has: nil)
        raise Error, "there are no stores while the program is built" unless Rehearsal.over?
        request = [operation, bucket, has || bytes.bytesize, value.bytesize].pack("L<4") << bytes << value
        answer = EVAL.call(request).to_s.b
        return answer if answer.getbyte(0).zero?
        at = operation >= 6 ? 8 : 4
        kind, address, length = answer.unpack("@#{at}Cx3L<L<")
        refusal = ["no such store", "access denied: grant it in wharf.toml"][kind]
        raise NotGranted, refusal if refusal
        raise Error, read(address, length)
      end

      # The guest's own memory.
      def read(address, length)
        length.zero? ? "".b : EVAL.call([0, address, length, 0].pack("L<4")).to_s.b
      end
    end

    private

    def operate(operation, key, value = "")
      KV.call(operation, @bucket, key.to_s.b, value.to_s.b)
    rescue Error => error
      raise error.class, "store #{@name.inspect}: #{error.message}"
    end
  end
end
