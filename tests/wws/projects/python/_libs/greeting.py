# As a package that pip put here: the standard library is there for it too.
from html import escape


def hello(name):
    return "Hello, {}!".format(escape(name))
