"""What `worker.py` asks of a tool."""


class Base:
    """One tool at work.

    Args:
        threads: CPU threads; the environment says the same.
        preset: of a tool that has presets.
    """

    package = ""  # the distribution whose version is told
    settings = ""  # a sentence for a person

    def __init__(self, threads, preset):
        self.threads = threads
        self.preset = preset

    def prepare(self):
        """Whatever comes once, before anything is measured."""

    def load(self, fixed, moving):
        """Two files in memory, as the tool wants them."""
        raise NotImplementedError

    def register(self, images, folder):
        """From images in memory to the field; this is timed. A tool that must may write into the folder."""
        raise NotImplementedError

    def save(self, result, images, folder):
        """Leave in the folder the moved image, `moved.nii.gz`, and the map.

        The map is `transform.h5`, the files of ANTs with the prefix `ants_`, elastix's last composite, or the field
        `warp.nii.gz` with the matrix `affine.txt` (RAS mm, after the field) if there is one.
        """
        raise NotImplementedError
