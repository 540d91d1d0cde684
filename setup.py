"""Puts copies of params.yaml and conf/ into the built package, as the defaults of the verbs outside of a checkout."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).parent


class BuildWithDefaults(build_py):
    """Builds the package, then copies the settings into it."""

    def run(self) -> None:
        """Copy ``params.yaml`` and ``conf/scale`` to ``mcpipe/defaults`` of the build folder."""
        super().run()
        if self.editable_mode:
            return
        defaults = Path(self.build_lib) / "mcpipe" / "defaults"
        defaults.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / "params.yaml", defaults)
        shutil.copytree(ROOT / "conf", defaults / "conf", dirs_exist_ok=True)


setup(cmdclass={"build_py": BuildWithDefaults})
