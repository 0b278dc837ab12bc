"""`python -m docs.generator`: rewrites the reference pages."""

from __future__ import annotations

from docs.generator.pages import pages


def main() -> None:
    """Writes the pages that have changed, and names them."""
    for file, text in pages().items():
        file.parent.mkdir(exist_ok=True)
        if not file.is_file() or file.read_text(encoding="utf-8") != text:
            file.write_text(text, encoding="utf-8")
            print(file)


if __name__ == "__main__":
    main()
