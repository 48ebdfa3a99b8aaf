"""From a mountain of photos to the deep and the shallow set (Appendix D), in the large and in the small.

    index -> exif -> rules -> duplicates -> blur -> photo -> caption -> pack, and a report over all of them

Every stage is a folder of parquet files, one per unit of work, keyed by the sha256 of the photo's bytes.
It reads the photos that the stage before it kept and writes a row for each of them, kept or not, with the
reason. So a photo's last row says what became of it. No pixels pass from stage to stage.
"""

#: In the order in which they run: each a module with a function `run`.
STAGES = ("index", "exif", "rules", "duplicates", "blur", "photo", "caption", "pack")
