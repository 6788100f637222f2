# frozen_string_literal: true

# The gems are on the load path already (wharf/gems.rb).
