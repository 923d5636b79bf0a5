"""``python -m tgi_llama``."""

from tgi_llama.cli import main

if __name__ == "__main__":
    main()
