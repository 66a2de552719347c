import subprocess
import sys


def test_listing_commands_imports_no_heavy_package() -> None:
    code = (
        "import sys; from service import cli; cli.main(['--help']);"
        "heavy = {'torch', 'vllm', 'fastapi', 'sqlalchemy', 'pydantic', 'workers', 'pyarrow'};"
        "print(sorted(heavy & set(sys.modules)))"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.splitlines()[-1] == "[]"
