"""What a file is written in, as far as its name tells.

Only the name is looked at. An extension that several languages share stands for the one it is used
for most: `.h` is C, `.m` is Objective-C, `.pl` is Perl.
"""

import re

_EXTENSION = re.compile(r"[a-z0-9+#_~-]{1,16}")
_BY_LANGUAGE = {
    "Ada": ".adb .ads",
    "Assembly": ".asm .s",
    "Awk": ".awk",
    "Batch": ".bat .cmd",
    "C": ".c .h",
    "C#": ".cs",
    "C++": ".cc .cpp .cxx .c++ .hh .hpp .hxx .inl .ipp .tcc",
    "CMake": ".cmake CMakeLists.txt",
    "CSS": ".css .less .sass .scss",
    "CSV": ".csv .tsv",
    "CUDA": ".cu .cuh",
    "Clojure": ".clj .cljc .cljs",
    "Common Lisp": ".cl .lisp .lsp",
    "Cython": ".pxd .pxi .pyx",
    "D": ".d",
    "Dart": ".dart",
    "Dockerfile": ".dockerfile Dockerfile",
    "Elixir": ".ex .exs",
    "Elm": ".elm",
    "Emacs Lisp": ".el",
    "Erlang": ".erl .hrl",
    "F#": ".fs .fsi .fsx",
    "Fortran": ".f .f03 .f08 .f77 .f90 .f95 .for",
    "GLSL": ".frag .glsl .vert",
    "Go": ".go go.mod",
    "GraphQL": ".gql .graphql",
    "Groovy": ".gradle .groovy",
    "HTML": ".htm .html .xhtml",
    "Haskell": ".hs .lhs",
    "INI": ".cfg .conf .ini",
    "JSON": ".geojson .ipynb .json .webmanifest",
    "Java": ".java",
    "JavaScript": ".cjs .js .jsx .mjs",
    "Jinja": ".j2 .jinja .jinja2",
    "Julia": ".jl",
    "Kotlin": ".kt .kts",
    "Lean": ".lean",
    "Lua": ".lua",
    "M4": ".ac .am .m4",
    "Make": ".mak .mk GNUmakefile Makefile",
    "Markdown": ".markdown .md .mdx",
    "Nim": ".nim",
    "Nix": ".nix",
    "OCaml": ".ml .mli",
    "Objective-C": ".m .mm",
    "PHP": ".php .phtml",
    "Pascal": ".dpr .pas .pp",
    "Patch": ".diff .patch",
    "Perl": ".pl .pm .pod .t",
    "PowerShell": ".ps1 .psd1 .psm1",
    "Protocol Buffers": ".proto",
    "Python": ".py .pyi .pyw",
    "R": ".r .rmd",
    "Racket": ".rkt",
    "Ruby": ".gemspec .rake .rb Gemfile Rakefile",
    "Rust": ".rs",
    "SQL": ".sql",
    "SVG": ".svg",
    "Scala": ".sbt .scala",
    "Scheme": ".scm .ss",
    "Shell": ".bash .fish .ksh .sh .zsh",
    "Solidity": ".sol",
    "Starlark": ".bzl BUILD WORKSPACE",
    "Swift": ".swift",
    "TOML": ".toml",
    "Tcl": ".tcl .tk",
    "TeX": ".bib .cls .ltx .sty .tex",
    "Terraform": ".tf .tfvars",
    "Text": ".text .txt",
    "Translation": ".po .pot",
    "TypeScript": ".cts .mts .ts .tsx",
    "VHDL": ".vhd .vhdl",
    "Verilog": ".sv .svh .v .vh",
    "Vim script": ".vim",
    "Visual Basic": ".bas .vb .vbs",
    "Vue": ".vue",
    "XML": ".dtd .xml .xsd .xsl .xslt",
    "YAML": ".yaml .yml",
    "Zig": ".zig",
    "reStructuredText": ".rst",
}
_LANGUAGES = {ending: name for name, endings in _BY_LANGUAGE.items() for ending in endings.split()}
_WHOLE_NAMES = {ending for ending in _LANGUAGES if not ending.startswith(".")}


def extension_of(path: str) -> str:
    """What tells the language: `.py`, a whole name such as `Makefile`, or the empty text."""
    name = path.rpartition("/")[2]
    if name in _WHOLE_NAMES:
        return name
    stem, _, extension = name.rpartition(".")
    extension = extension.lower()
    return f".{extension}" if stem and _EXTENSION.fullmatch(extension) else ""


def language_of(extension: str) -> str | None:
    """The language of an extension; None for one that is not in the table."""
    return _LANGUAGES.get(extension)
