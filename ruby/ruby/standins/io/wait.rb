# frozen_string_literal: true

# The library net/http asks for it; IO has these methods by itself.
