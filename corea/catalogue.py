from corea.models.catalogue import *  # noqa
